PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE _etl_loads (
	run TEXT NOT NULL, 
	partition INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	client TEXT NOT NULL, 
	pipeline TEXT NOT NULL, 
	table_name TEXT NOT NULL, 
	mode TEXT NOT NULL, 
	file TEXT NOT NULL, 
	first_byte BIGINT NOT NULL, 
	last_byte BIGINT, 
	version TEXT NOT NULL, 
	content TEXT NOT NULL, 
	fingerprint TEXT NOT NULL, 
	types TEXT DEFAULT '{}' NOT NULL, 
	read BIGINT DEFAULT '-1' NOT NULL, 
	rows BIGINT NOT NULL, 
	loaded BIGINT NOT NULL, 
	unchanged BIGINT NOT NULL, 
	superseded BIGINT NOT NULL, 
	rejected BIGINT NOT NULL, 
	final BOOLEAN NOT NULL, 
	loaded_at TIMESTAMP NOT NULL, 
	PRIMARY KEY (run, partition)
);
INSERT INTO _etl_loads VALUES('3mcj4b79gh',1,1,'zenith','claims','claims','merge','inbox/zenith/claims-1.csv',0,NULL,'88f0eaa305fd33bba72b58411d72dd5bebbd09f2585fa460294e112a4f1bff2a','88f0eaa305fd33bba72b58411d72dd5bebbd09f2585fa460294e112a4f1bff2a','313a7e192be97384','{"claim_id": "string", "amount": "decimal", "updated_at": "timestamp"}',3,3,3,0,0,0,1,'2026-11-26 07:42:26.762406');
INSERT INTO _etl_loads VALUES('z98r2krenh',1,1,'acme','claims','claims','merge','inbox/acme/claims-1.csv',0,NULL,'94170d06f8c3baedf91ef05ee655646613173b2c34cf26616dda3b4f3319bd5e','94170d06f8c3baedf91ef05ee655646613173b2c34cf26616dda3b4f3319bd5e','313a7e192be97384','{"claim_id": "string", "amount": "decimal", "updated_at": "timestamp"}',3,3,3,0,0,0,1,'2026-11-26 07:42:27.324446');
INSERT INTO _etl_loads VALUES('38uq7c6unn',1,1,'acme','visits','visits_acme','append','inbox/acme/visits-1.csv',0,NULL,'847f5cce23e70b19ae75bc032a517b77e0049eb0bd1f19d719cda69e10f87e41','847f5cce23e70b19ae75bc032a517b77e0049eb0bd1f19d719cda69e10f87e41','eb6940a5b06d1c42','{"visit": "integer", "day": "date", "paid": "boolean"}',4,3,3,0,0,0,1,'2026-11-26 07:43:03.128529');
INSERT INTO _etl_loads VALUES('hehckcubrx',1,1,'zenith','visits','visits_zenith','append','inbox/zenith/visits-1.csv',0,NULL,'06f8907bfa2d54d9400f1758df1e6291dea00aa03753ca1cc11df6351485c134','06f8907bfa2d54d9400f1758df1e6291dea00aa03753ca1cc11df6351485c134','eb6940a5b06d1c42','{"visit": "integer", "day": "date", "paid": "boolean"}',4,3,3,0,0,0,1,'2026-11-26 07:43:04.400518');
INSERT INTO _etl_loads VALUES('72ymesksde',1,1,'zenith','prices','prices','replace','inbox/zenith/prices.csv',0,NULL,'24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18','24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18','21ecd8991cf84868','{"code": "string", "price": "number"}',3,3,3,0,0,0,1,'2026-11-26 07:43:40.802852');
INSERT INTO _etl_loads VALUES('3sbeunrvn5',1,1,'acme','prices','prices','replace','inbox/acme/prices.csv',0,NULL,'24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18','24026c5f4e2317eacfe02286ee32c62a2abecb1f606811ba163a881a701a8f18','21ecd8991cf84868','{"code": "string", "price": "number"}',3,3,3,0,0,0,1,'2026-11-26 07:43:41.587085');
INSERT INTO _etl_loads VALUES('zaezqv8fcb',1,1,'zenith','payments','payments','append','inbox/zenith/payments.csv',0,NULL,'ca29c8fe2eabe85b257c9e362264ed3a1a43a4cfaca763602fa6fae43042c24f','ca29c8fe2eabe85b257c9e362264ed3a1a43a4cfaca763602fa6fae43042c24f','6cbd8dfe1069d01e','{"id": "integer", "amount": "decimal"}',3,3,3,0,0,0,1,'2026-11-26 07:44:05.354542');
INSERT INTO _etl_loads VALUES('m8wu8k5byy',1,1,'acme','payments','payments','append','inbox/acme/payments.csv',0,NULL,'aaf1a0d426fb6815b235339ed98f4e852c997964c3242ee1cac4edb83998d16f','aaf1a0d426fb6815b235339ed98f4e852c997964c3242ee1cac4edb83998d16f','6cbd8dfe1069d01e','{"id": "integer", "amount": "decimal"}',3,3,3,0,0,0,1,'2026-11-26 07:44:06.366673');
INSERT INTO _etl_loads VALUES('apw76sfmh4',1,1,'zenith','orders','orders_zenith','merge','inbox/zenith/orders-1.csv',0,NULL,'d2dff170f4ee3fe1f3271ca7d9f84f5640f4cfe8787ac3e27ed627ddb62176c0','d2dff170f4ee3fe1f3271ca7d9f84f5640f4cfe8787ac3e27ed627ddb62176c0','14fc46ed51229613','{"id": "integer", "what": "string"}',2,2,2,0,0,0,1,'2026-11-26 07:44:27.414556');
INSERT INTO _etl_loads VALUES('huas98frwb',1,1,'acme','orders','orders_acme','merge','inbox/acme/orders-1.csv',0,NULL,'3439974e9089f3785f2b29a9435f54119a9c1bab705bc7676ff003d52565b406','3439974e9089f3785f2b29a9435f54119a9c1bab705bc7676ff003d52565b406','14fc46ed51229613','{"id": "integer", "what": "string"}',2,2,0,0,0,0,0,'2026-11-26 07:44:27.068995');
INSERT INTO _etl_loads VALUES('apw76sfmh4',2,1,'zenith','orders','orders_zenith','merge','inbox/zenith/orders-2.csv',0,NULL,'5df0d0a32afc249cb3148cbf4e0af321a74205f6f9984ff2a56942377896caa0','5df0d0a32afc249cb3148cbf4e0af321a74205f6f9984ff2a56942377896caa0','14fc46ed51229613','{"id": "integer", "what": "string"}',1,1,1,0,0,0,1,'2026-11-26 07:44:27.415183');
CREATE TABLE claims (
	claim_id TEXT NOT NULL, 
	amount NUMERIC, 
	updated_at TEXT, 
	_client TEXT NOT NULL, 
	_run TEXT, 
	_file TEXT, 
	PRIMARY KEY (claim_id, _client)
);
INSERT INTO claims VALUES('C1',110.5,'2026-01-01 08:00:00','zenith','3mcj4b79gh','inbox/zenith/claims-1.csv');
INSERT INTO claims VALUES('C2',120,'2026-01-02 08:00:00','zenith','3mcj4b79gh','inbox/zenith/claims-1.csv');
INSERT INTO claims VALUES('C3',130.00000000099998942,'2026-01-03 08:00:00','zenith','3mcj4b79gh','inbox/zenith/claims-1.csv');
INSERT INTO claims VALUES('C1',10.499999999999999999,'2026-01-01 08:00:00','acme','z98r2krenh','inbox/acme/claims-1.csv');
INSERT INTO claims VALUES('C2',20,'2026-01-02 08:00:00','acme','z98r2krenh','inbox/acme/claims-1.csv');
INSERT INTO claims VALUES('C3',30.000000001000000082,'2026-01-03 08:00:00','acme','z98r2krenh','inbox/acme/claims-1.csv');
CREATE TABLE _etl_runs (
	run TEXT NOT NULL, 
	client TEXT NOT NULL, 
	pipeline TEXT NOT NULL, 
	table_name TEXT NOT NULL, 
	state TEXT NOT NULL, 
	attempt INTEGER NOT NULL, 
	submitted TIMESTAMP, 
	started TIMESTAMP, 
	finished TIMESTAMP NOT NULL, 
	rows TEXT NOT NULL, 
	partitions TEXT NOT NULL, 
	params TEXT NOT NULL, 
	window_start TEXT, 
	window_end TEXT, 
	fingerprint TEXT NOT NULL, 
	code TEXT NOT NULL, 
	error TEXT, 
	PRIMARY KEY (run)
);
INSERT INTO _etl_runs VALUES('3mcj4b79gh','zenith','claims','claims','succeeded',1,'2026-11-26 07:42:17.527845','2026-11-26 07:42:26.148211','2026-11-26 07:42:26.783903','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'313a7e192be97384','',NULL);
INSERT INTO _etl_runs VALUES('z98r2krenh','acme','claims','claims','succeeded',1,'2026-11-26 07:42:17.381114','2026-11-26 07:42:26.720742','2026-11-26 07:42:27.324978','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'313a7e192be97384','',NULL);
INSERT INTO _etl_runs VALUES('38uq7c6unn','acme','visits','visits_acme','succeeded',1,'2026-11-26 07:42:55.250036','2026-11-26 07:43:02.672940','2026-11-26 07:43:03.130617','{"read": 4, "added": 0, "rejected": 1, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'eb6940a5b06d1c42','',NULL);
INSERT INTO _etl_runs VALUES('hehckcubrx','zenith','visits','visits_zenith','succeeded',1,'2026-11-26 07:42:55.352137','2026-11-26 07:43:03.759421','2026-11-26 07:43:04.401921','{"read": 4, "added": 0, "rejected": 1, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'eb6940a5b06d1c42','',NULL);
INSERT INTO _etl_runs VALUES('72ymesksde','zenith','prices','prices','succeeded',1,'2026-11-26 07:43:31.978348','2026-11-26 07:43:40.342206','2026-11-26 07:43:40.825165','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'21ecd8991cf84868','',NULL);
INSERT INTO _etl_runs VALUES('3sbeunrvn5','acme','prices','prices','succeeded',1,'2026-11-26 07:43:31.840041','2026-11-26 07:43:40.804371','2026-11-26 07:43:41.616637','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'21ecd8991cf84868','',NULL);
INSERT INTO _etl_runs VALUES('zaezqv8fcb','zenith','payments','payments','succeeded',1,'2026-11-26 07:43:56.798307','2026-11-26 07:44:04.923371','2026-11-26 07:44:05.398125','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'6cbd8dfe1069d01e','',NULL);
INSERT INTO _etl_runs VALUES('m8wu8k5byy','acme','payments','payments','succeeded',1,'2026-11-26 07:43:56.768019','2026-11-26 07:44:06.076274','2026-11-26 07:44:06.438781','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 1, "done": 1, "failed": 0, "blocked": 0}','{}',NULL,NULL,'6cbd8dfe1069d01e','',NULL);
INSERT INTO _etl_runs VALUES('huas98frwb','acme','orders','orders_acme','failed',1,'2026-11-26 07:44:18.775720','2026-11-26 07:44:26.447419','2026-11-26 07:44:27.270269','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 0, "unchanged": 0}','{"total": 2, "done": 1, "failed": 1, "blocked": 0}','{}',NULL,NULL,'14fc46ed51229613','',replace('inbox/acme/orders-2.csv: none of the declared columns (id, what) is in it; its header has one other column\n  look at the extract''s delimiter, encoding, skip and header','\n',char(10)));
INSERT INTO _etl_runs VALUES('apw76sfmh4','zenith','orders','orders_zenith','succeeded',1,'2026-11-26 07:44:18.875642','2026-11-26 07:44:26.349867','2026-11-26 07:44:27.438139','{"read": 3, "added": 0, "rejected": 0, "dropped": 0, "superseded": 0, "loaded": 3, "unchanged": 0}','{"total": 2, "done": 2, "failed": 0, "blocked": 0}','{}',NULL,NULL,'14fc46ed51229613','',NULL);
CREATE TABLE visits_acme (
	visit INTEGER, 
	day TEXT, 
	paid INTEGER, 
	_run TEXT, 
	_file TEXT
);
INSERT INTO visits_acme VALUES(1,'2026-01-01',1,'38uq7c6unn','inbox/acme/visits-1.csv');
INSERT INTO visits_acme VALUES(2,'2026-01-02',0,'38uq7c6unn','inbox/acme/visits-1.csv');
INSERT INTO visits_acme VALUES(4,NULL,NULL,'38uq7c6unn','inbox/acme/visits-1.csv');
CREATE TABLE visits_zenith (
	visit INTEGER, 
	day TEXT, 
	paid INTEGER, 
	_run TEXT, 
	_file TEXT
);
INSERT INTO visits_zenith VALUES(101,'2026-01-01',1,'hehckcubrx','inbox/zenith/visits-1.csv');
INSERT INTO visits_zenith VALUES(102,'2026-01-02',0,'hehckcubrx','inbox/zenith/visits-1.csv');
INSERT INTO visits_zenith VALUES(104,NULL,NULL,'hehckcubrx','inbox/zenith/visits-1.csv');
CREATE TABLE prices (
	code TEXT, 
	price REAL, 
	_client TEXT, 
	_run TEXT, 
	_file TEXT
);
INSERT INTO prices VALUES('A',1.5,'zenith','72ymesksde','inbox/zenith/prices.csv');
INSERT INTO prices VALUES('B',2.25,'zenith','72ymesksde','inbox/zenith/prices.csv');
INSERT INTO prices VALUES('C',NULL,'zenith','72ymesksde','inbox/zenith/prices.csv');
INSERT INTO prices VALUES('A',1.5,'acme','3sbeunrvn5','inbox/acme/prices.csv');
INSERT INTO prices VALUES('B',2.25,'acme','3sbeunrvn5','inbox/acme/prices.csv');
INSERT INTO prices VALUES('C',NULL,'acme','3sbeunrvn5','inbox/acme/prices.csv');
CREATE TABLE payments (
	id INTEGER, 
	amount NUMERIC, 
	_client TEXT, 
	_run TEXT, 
	_file TEXT
);
INSERT INTO payments VALUES(1,101,'zenith','zaezqv8fcb','inbox/zenith/payments.csv');
INSERT INTO payments VALUES(2,102,'zenith','zaezqv8fcb','inbox/zenith/payments.csv');
INSERT INTO payments VALUES(3,103,'zenith','zaezqv8fcb','inbox/zenith/payments.csv');
INSERT INTO payments VALUES(1,1,'acme','m8wu8k5byy','inbox/acme/payments.csv');
INSERT INTO payments VALUES(2,2,'acme','m8wu8k5byy','inbox/acme/payments.csv');
INSERT INTO payments VALUES(3,3,'acme','m8wu8k5byy','inbox/acme/payments.csv');
CREATE TABLE _etl_cursors (
	client TEXT NOT NULL, 
	pipeline TEXT NOT NULL, 
	table_name TEXT NOT NULL, 
	"column" TEXT NOT NULL, 
	type TEXT NOT NULL, 
	value TEXT NOT NULL, 
	updated_at TIMESTAMP NOT NULL, 
	run TEXT NOT NULL, 
	PRIMARY KEY (client, pipeline, table_name, "column")
);
INSERT INTO _etl_cursors VALUES('zenith','payments','payments','id','integer','3','2026-11-26 07:44:05.396511','zaezqv8fcb');
INSERT INTO _etl_cursors VALUES('acme','payments','payments','id','integer','3','2026-11-26 07:44:06.437736','m8wu8k5byy');
CREATE TABLE _etl_shadow_huas98frwb (
	_etl_id INTEGER NOT NULL, 
	_etl_order BIGINT, 
	_etl_row BIGINT, 
	_file TEXT, 
	id INTEGER, 
	what TEXT, 
	PRIMARY KEY (_etl_id)
);
INSERT INTO _etl_shadow_huas98frwb VALUES(4294967296,0,2,'inbox/acme/orders-1.csv',1,'paper');
INSERT INTO _etl_shadow_huas98frwb VALUES(4294967297,0,3,'inbox/acme/orders-1.csv',2,'ink');
CREATE TABLE orders_zenith (
	id INTEGER NOT NULL, 
	what TEXT, 
	_run TEXT, 
	_file TEXT, 
	PRIMARY KEY (id)
);
INSERT INTO orders_zenith VALUES(101,'paper','apw76sfmh4','inbox/zenith/orders-1.csv');
INSERT INTO orders_zenith VALUES(102,'ink','apw76sfmh4','inbox/zenith/orders-1.csv');
INSERT INTO orders_zenith VALUES(103,'glue','apw76sfmh4','inbox/zenith/orders-2.csv');
CREATE INDEX _etl_loads_file ON _etl_loads (client, pipeline, table_name, file);
CREATE INDEX _etl_runs_finished ON _etl_runs (finished);
CREATE INDEX _etl_runs_latest ON _etl_runs (client, pipeline, finished);
COMMIT;
