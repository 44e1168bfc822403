"""The demo's own functions: plain pandas. Each gets the rows of one partition and returns a DataFrame."""

from collections.abc import Mapping
from typing import Any

import pandas as pd

from rq_etl import reject


def clean(df: pd.DataFrame) -> pd.DataFrame:
    """Tidy the payers' names, leave out test patients, and set aside claims that were paid more than once."""
    df = df.assign(payer=df["payer"].str.strip())
    df = df[df["patient"] != "TEST"]
    return reject(df, df["paid"] > df["amount"], reason="paid more than billed", column="paid")


def outstanding(df: pd.DataFrame, params: Mapping[str, Any], digits: int) -> pd.DataFrame:
    """Add what the clinic can still expect: what is unpaid, times the client's rate; nothing once denied."""
    unpaid = (df["amount"] - df["paid"]).astype("float64")
    expected = unpaid * float(params["rate"])
    return df.assign(outstanding=expected.where(df["status"] != "DENIED", 0.0).round(digits))
