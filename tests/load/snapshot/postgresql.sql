COMMENT ON SCHEMA public IS '';
CREATE TABLE public._etl_cursors (
    client text NOT NULL,
    pipeline text NOT NULL,
    table_name text NOT NULL,
    "column" text NOT NULL,
    type text NOT NULL,
    value text NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    run text NOT NULL
);
CREATE TABLE public._etl_loads (
    run text NOT NULL,
    partition integer NOT NULL,
    attempt integer NOT NULL,
    client text NOT NULL,
    pipeline text NOT NULL,
    table_name text NOT NULL,
    mode text NOT NULL,
    file text NOT NULL,
    first_byte bigint NOT NULL,
    last_byte bigint,
    version text NOT NULL,
    content text NOT NULL,
    fingerprint text NOT NULL,
    types text DEFAULT '{}'::text NOT NULL,
    read bigint DEFAULT '-1'::bigint NOT NULL,
    rows bigint NOT NULL,
    loaded bigint NOT NULL,
    unchanged bigint NOT NULL,
    superseded bigint NOT NULL,
    rejected bigint NOT NULL,
    final boolean NOT NULL,
    loaded_at timestamp with time zone NOT NULL
);
CREATE TABLE public._etl_runs (
    run text NOT NULL,
    client text NOT NULL,
    pipeline text NOT NULL,
    table_name text NOT NULL,
    state text NOT NULL,
    attempt integer NOT NULL,
    submitted timestamp with time zone,
    started timestamp with time zone,
    finished timestamp with time zone NOT NULL,
    rows text NOT NULL,
    partitions text NOT NULL,
    params text NOT NULL,
    window_start text,
    window_end text,
    fingerprint text NOT NULL,
    code text NOT NULL,
    error text
);
CREATE TABLE public._etl_shadow_8gj4aujre9 (
    _etl_id bigint,
    _etl_order bigint,
    _etl_row bigint,
    _file text,
    id bigint,
    what text
);
CREATE TABLE public.claims (
    claim_id text NOT NULL,
    amount numeric,
    updated_at timestamp with time zone,
    _client text NOT NULL,
    _run text,
    _file text
);
CREATE TABLE public.orders_zenith (
    id bigint NOT NULL,
    what text,
    _run text,
    _file text
);
CREATE TABLE public.payments (
    id bigint,
    amount numeric,
    _client text,
    _run text,
    _file text
);
CREATE TABLE public.prices (
    code text,
    price double precision,
    _client text,
    _run text,
    _file text
);
CREATE TABLE public.visits_acme (
    visit bigint,
    day date,
    paid boolean,
    _run text,
    _file text
);
CREATE TABLE public.visits_zenith (
    visit bigint,
    day date,
    paid boolean,
    _run text,
    _file text
);
INSERT INTO public._etl_cursors VALUES ('acme', 'payments', 'payments', 'id', 'integer', '3', '2026-11-26 07:49:29.726919+00', 'nx7gqfzjnw');
INSERT INTO public._etl_cursors VALUES ('zenith', 'payments', 'payments', 'id', 'integer', '3', '2026-11-26 07:49:31.421309+00', '6328tcumg2');
INSERT INTO public._etl_loads VALUES ('du7kdq6pdt', 1, 1, 'zenith', 'claims', 'claims', 'merge', 'inbox/zenith/claims-1.csv', 0, NULL, '88f0eaa305fd33bba72b58411d72dd5bebbd09f2585fa460294e112a4f1bff2a', '88f0eaa305fd33bba72b58411d72dd5bebbd09f2585fa460294e112a4f1bff2a', '313a7e192be97384', '{"claim_id": "string", "amount": "decimal", "updated_at": "timestamp"}', 3, 3, 3, 0, 0, 0, true, '2026-11-26 07:45:29.965881+00');
INSERT INTO public._etl_loads VALUES ('gaq76hn3cx', 1, 1, 'acme', 'claims', 'claims', 'merge', 'inbox/acme/claims-1.csv', 0, NULL, '94170d06f8c3baedf91ef05ee655646613173b2c34cf26616dda3b4f3319bd5e', '94170d06f8c3baedf91ef05ee655646613173b2c34cf26616dda3b4f3319bd5e', '313a7e192be97384', '{"claim_id": "string", "amount": "decimal", "updated_at": "timestamp"}', 3, 3, 3, 0, 0, 0, true, '2026-11-26 07:45:31.254988+00');
INSERT INTO public._etl_loads VALUES ('t5d4us76nm', 1, 1, 'acme', 'visits', 'visits_acme', 'append', 'inbox/acme/visits-1.csv', 0, NULL, '847f5cce23e70b19ae75bc032a517b77e0049eb0bd1f19d719cda69e10f87e41', '847f5cce23e70b19ae75bc032a517b77e0049eb0bd1f19d719cda69e10f87e41', 'eb6940a5b06d1c42', '{"visit": "integer", "day": "date", "paid": "boolean"}', 4, 3, 3, 0, 0, 0, true, '2026-11-26 07:46:12.262684+00');
INSERT INTO public._etl_loads VALUES ('6325nek8qh', 1, 1, 'zenith', 'visits', 'visits_zenith', 'append', 'inbox/zenith/visits-1.csv', 0, NULL, '06f8907bfa2d54d9400f1758df1e6291dea00aa03753ca1cc11df6351485c134', '06f8907bfa2d54d9400f1758df1e6291dea00aa03753ca1cc11df6351485c134', 'eb6940a5b06d1c42', '{"visit": "integer", "day": "date", "paid": "boolean"}', 4, 3, 3, 0, 0, 0, true, '2026-11-26 07:46:12.732309+00');
INSERT INTO public._etl_loads VALUES ('d3wezqc8y5', 1, 1, 'acme', 'prices', 'prices', 'replace', 'inbox/acme/prices.csv', 0, NULL, '24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18', '24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18', '21ecd8991cf84868', '{"code": "string", "price": "number"}', 3, 3, 3, 0, 0, 0, true, '2026-11-26 07:46:50.672345+00');
INSERT INTO public._etl_loads VALUES ('3qh65w7qkx', 1, 1, 'zenith', 'prices', 'prices', 'replace', 'inbox/zenith/prices.csv', 0, NULL, '24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18', '24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18', '21ecd8991cf84868', '{"code": "string", "price": "number"}', 3, 3, 3, 0, 0, 0, true, '2026-11-26 07:46:51.457843+00');
INSERT INTO public._etl_loads VALUES ('nx7gqfzjnw', 1, 1, 'acme', 'payments', 'payments', 'append', 'inbox/acme/payments.csv', 0, NULL, 'aaf1a0d426fb6815b235339ed98f4e852c997964c3242ee1cac4edb83998d16f', 'aaf1a0d426fb6815b235339ed98f4e852c997964c3242ee1cac4edb83998d16f', '6cbd8dfe1069d01e', '{"id": "integer", "amount": "decimal"}', 3, 3, 3, 0, 0, 0, true, '2026-11-26 07:49:29.696357+00');
INSERT INTO public._etl_loads VALUES ('6328tcumg2', 1, 1, 'zenith', 'payments', 'payments', 'append', 'inbox/zenith/payments.csv', 0, NULL, 'ca29c8fe2eabe85b257c9e362264ed3a1a43a4cfaca763602fa6fae43042c24f', 'ca29c8fe2eabe85b257c9e362264ed3a1a43a4cfaca763602fa6fae43042c24f', '6cbd8dfe1069d01e', '{"id": "integer", "amount": "decimal"}', 3, 3, 3, 0, 0, 0, true, '2026-11-26 07:49:31.376503+00');
INSERT INTO public._etl_loads VALUES ('8gj4aujre9', 1, 1, 'acme', 'orders', 'orders_acme', 'merge', 'inbox/acme/orders-1.csv', 0, NULL, '3439974e9089f3785f2b29a9435f54119a9c1bab705bc7676ff003d52565b406', '3439974e9089f3785f2b29a9435f54119a9c1bab705bc7676ff003d52565b406', '14fc46ed51229613', '{"id": "integer", "what": "string"}', 2, 2, 0, 0, 0, 0, false, '2026-11-26 07:49:52.636416+00');
INSERT INTO public._etl_loads VALUES ('cxacxbxjyb', 1, 1, 'zenith', 'orders', 'orders_zenith', 'merge', 'inbox/zenith/orders-1.csv', 0, NULL, 'd2dff170f4ee3fe1f3271ca7d9f84f5640f4cfe8787ac3e27ed627ddb62176c0', 'd2dff170f4ee3fe1f3271ca7d9f84f5640f4cfe8787ac3e27ed627ddb62176c0', '14fc46ed51229613', '{"id": "integer", "what": "string"}', 2, 2, 2, 0, 0, 0, true, '2026-11-26 07:49:52.784087+00');
INSERT INTO public._etl_loads VALUES ('cxacxbxjyb', 2, 1, 'zenith', 'orders', 'orders_zenith', 'merge', 'inbox/zenith/orders-2.csv', 0, NULL, '5df0d0a32afc249cb3148cbf4e0af321a74205f6f9984ff2a56942377896caa0', '5df0d0a32afc249cb3148cbf4e0af321a74205f6f9984ff2a56942377896caa0', '14fc46ed51229613', '{"id": "integer", "what": "string"}', 1, 1, 1, 0, 0, 0, true, '2026-11-26 07:49:52.788261+00');
INSERT INTO public._etl_runs VALUES ('du7kdq6pdt', 'zenith', 'claims', 'claims', 'succeeded', 1, '2026-11-26 07:45:18.170698+00', '2026-11-26 07:45:28.685668+00', '2026-11-26 07:45:29.974841+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, '313a7e192be97384', '', NULL);
INSERT INTO public._etl_runs VALUES ('gaq76hn3cx', 'acme', 'claims', 'claims', 'succeeded', 1, '2026-11-26 07:45:17.768641+00', '2026-11-26 07:45:29.500872+00', '2026-11-26 07:45:31.268811+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, '313a7e192be97384', '', NULL);
INSERT INTO public._etl_runs VALUES ('t5d4us76nm', 'acme', 'visits', 'visits_acme', 'succeeded', 1, '2026-11-26 07:46:02.127907+00', '2026-11-26 07:46:11.695886+00', '2026-11-26 07:46:12.271094+00', '{"read": 4, "added": 0, "rejected": 1, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, 'eb6940a5b06d1c42', '', NULL);
INSERT INTO public._etl_runs VALUES ('6325nek8qh', 'zenith', 'visits', 'visits_zenith', 'succeeded', 1, '2026-11-26 07:46:02.448346+00', '2026-11-26 07:46:11.561614+00', '2026-11-26 07:46:12.734565+00', '{"read": 4, "added": 0, "rejected": 1, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, 'eb6940a5b06d1c42', '', NULL);
INSERT INTO public._etl_runs VALUES ('d3wezqc8y5', 'acme', 'prices', 'prices', 'succeeded', 1, '2026-11-26 07:46:41.010016+00', '2026-11-26 07:46:49.813731+00', '2026-11-26 07:46:50.684187+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, '21ecd8991cf84868', '', NULL);
INSERT INTO public._etl_runs VALUES ('3qh65w7qkx', 'zenith', 'prices', 'prices', 'succeeded', 1, '2026-11-26 07:46:41.308702+00', '2026-11-26 07:46:50.374633+00', '2026-11-26 07:46:51.460783+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, '21ecd8991cf84868', '', NULL);
INSERT INTO public._etl_runs VALUES ('nx7gqfzjnw', 'acme', 'payments', 'payments', 'succeeded', 1, '2026-11-26 07:49:21.535177+00', '2026-11-26 07:49:28.804973+00', '2026-11-26 07:49:29.734644+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, '6cbd8dfe1069d01e', '', NULL);
INSERT INTO public._etl_runs VALUES ('6328tcumg2', 'zenith', 'payments', 'payments', 'succeeded', 1, '2026-11-26 07:49:21.55942+00', '2026-11-26 07:49:30.79737+00', '2026-11-26 07:49:31.432477+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 1, "done": 1, "failed": 0, "blocked": 0}', '{}', NULL, NULL, '6cbd8dfe1069d01e', '', NULL);
INSERT INTO public._etl_runs VALUES ('8gj4aujre9', 'acme', 'orders', 'orders_acme', 'failed', 1, '2026-11-26 07:49:43.003409+00', '2026-11-26 07:49:51.800641+00', '2026-11-26 07:49:52.828519+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 0, "unchanged": 0}', '{"total": 2, "done": 1, "failed": 1, "blocked": 0}', '{}', NULL, NULL, '14fc46ed51229613', '', 'inbox/acme/orders-2.csv: none of the declared columns (id, what) is in it; its header has one other column
  look at the extract''s delimiter, encoding, skip and header');
INSERT INTO public._etl_runs VALUES ('cxacxbxjyb', 'zenith', 'orders', 'orders_zenith', 'succeeded', 1, '2026-11-26 07:49:43.064707+00', '2026-11-26 07:49:51.658546+00', '2026-11-26 07:49:52.830784+00', '{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}', '{"total": 2, "done": 2, "failed": 0, "blocked": 0}', '{}', NULL, NULL, '14fc46ed51229613', '', NULL);
INSERT INTO public._etl_shadow_8gj4aujre9 VALUES (4294967296, 0, 2, 'inbox/acme/orders-1.csv', 1, 'paper');
INSERT INTO public._etl_shadow_8gj4aujre9 VALUES (4294967297, 0, 3, 'inbox/acme/orders-1.csv', 2, 'ink');
INSERT INTO public.claims VALUES ('C1', 110.5, '2026-01-01 08:00:00+00', 'zenith', 'du7kdq6pdt', 'inbox/zenith/claims-1.csv');
INSERT INTO public.claims VALUES ('C2', 120, '2026-01-02 08:00:00+00', 'zenith', 'du7kdq6pdt', 'inbox/zenith/claims-1.csv');
INSERT INTO public.claims VALUES ('C3', 130.000000001, '2026-01-03 08:00:00+00', 'zenith', 'du7kdq6pdt', 'inbox/zenith/claims-1.csv');
INSERT INTO public.claims VALUES ('C1', 10.5, '2026-01-01 08:00:00+00', 'acme', 'gaq76hn3cx', 'inbox/acme/claims-1.csv');
INSERT INTO public.claims VALUES ('C2', 20, '2026-01-02 08:00:00+00', 'acme', 'gaq76hn3cx', 'inbox/acme/claims-1.csv');
INSERT INTO public.claims VALUES ('C3', 30.000000001, '2026-01-03 08:00:00+00', 'acme', 'gaq76hn3cx', 'inbox/acme/claims-1.csv');
INSERT INTO public.orders_zenith VALUES (101, 'paper', 'cxacxbxjyb', 'inbox/zenith/orders-1.csv');
INSERT INTO public.orders_zenith VALUES (102, 'ink', 'cxacxbxjyb', 'inbox/zenith/orders-1.csv');
INSERT INTO public.orders_zenith VALUES (103, 'glue', 'cxacxbxjyb', 'inbox/zenith/orders-2.csv');
INSERT INTO public.payments VALUES (1, 1, 'acme', 'nx7gqfzjnw', 'inbox/acme/payments.csv');
INSERT INTO public.payments VALUES (2, 2, 'acme', 'nx7gqfzjnw', 'inbox/acme/payments.csv');
INSERT INTO public.payments VALUES (3, 3, 'acme', 'nx7gqfzjnw', 'inbox/acme/payments.csv');
INSERT INTO public.payments VALUES (1, 101, 'zenith', '6328tcumg2', 'inbox/zenith/payments.csv');
INSERT INTO public.payments VALUES (2, 102, 'zenith', '6328tcumg2', 'inbox/zenith/payments.csv');
INSERT INTO public.payments VALUES (3, 103, 'zenith', '6328tcumg2', 'inbox/zenith/payments.csv');
INSERT INTO public.prices VALUES ('A', 1.5, 'acme', 'd3wezqc8y5', 'inbox/acme/prices.csv');
INSERT INTO public.prices VALUES ('B', 2.25, 'acme', 'd3wezqc8y5', 'inbox/acme/prices.csv');
INSERT INTO public.prices VALUES ('C', NULL, 'acme', 'd3wezqc8y5', 'inbox/acme/prices.csv');
INSERT INTO public.prices VALUES ('A', 1.5, 'zenith', '3qh65w7qkx', 'inbox/zenith/prices.csv');
INSERT INTO public.prices VALUES ('B', 2.25, 'zenith', '3qh65w7qkx', 'inbox/zenith/prices.csv');
INSERT INTO public.prices VALUES ('C', NULL, 'zenith', '3qh65w7qkx', 'inbox/zenith/prices.csv');
INSERT INTO public.visits_acme VALUES (1, '2026-01-01', true, 't5d4us76nm', 'inbox/acme/visits-1.csv');
INSERT INTO public.visits_acme VALUES (2, '2026-01-02', false, 't5d4us76nm', 'inbox/acme/visits-1.csv');
INSERT INTO public.visits_acme VALUES (4, NULL, NULL, 't5d4us76nm', 'inbox/acme/visits-1.csv');
INSERT INTO public.visits_zenith VALUES (101, '2026-01-01', true, '6325nek8qh', 'inbox/zenith/visits-1.csv');
INSERT INTO public.visits_zenith VALUES (102, '2026-01-02', false, '6325nek8qh', 'inbox/zenith/visits-1.csv');
INSERT INTO public.visits_zenith VALUES (104, NULL, NULL, '6325nek8qh', 'inbox/zenith/visits-1.csv');
ALTER TABLE ONLY public._etl_cursors
    ADD CONSTRAINT _etl_cursors_pkey PRIMARY KEY (client, pipeline, table_name, "column");
ALTER TABLE ONLY public._etl_loads
    ADD CONSTRAINT _etl_loads_pkey PRIMARY KEY (run, partition);
ALTER TABLE ONLY public._etl_runs
    ADD CONSTRAINT _etl_runs_pkey PRIMARY KEY (run);
ALTER TABLE ONLY public.claims
    ADD CONSTRAINT claims_pkey PRIMARY KEY (_client, claim_id);
ALTER TABLE ONLY public.orders_zenith
    ADD CONSTRAINT orders_zenith_pkey PRIMARY KEY (id);
CREATE INDEX _etl_loads_file ON public._etl_loads USING btree (client, pipeline, table_name, file);
CREATE INDEX _etl_runs_finished ON public._etl_runs USING btree (finished);
CREATE INDEX _etl_runs_latest ON public._etl_runs USING btree (client, pipeline, finished);
