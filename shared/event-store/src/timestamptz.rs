//! PostgreSQL's timestamp type, which the driver does not provide without another crate.

use sqlx::{
    Decode, Encode, Postgres, Type,
    encode::IsNull,
    error::BoxDynError,
    postgres::{
        PgArgumentBuffer, PgHasArrayType, PgTypeInfo, PgValueFormat, PgValueRef, types::Oid,
    },
};

// These numbers are fixed in every PostgreSQL, like those of all built-in types.
const TIMESTAMPTZ: Oid = Oid(1184);
const TIMESTAMPTZ_ARRAY: Oid = Oid(1185);

/// Microseconds from 1970-01-01 to 2000-01-01, PostgreSQL's epoch.
pub(crate) const MICROS_TO_2000: i64 = 946_684_800_000_000;

/// The earliest time of PostgreSQL, 4714 BC, in microseconds since 2000. It accepts every later
/// time that fits into 64 bits.
const EARLIEST: i64 = -211_813_488_000_000_000;

/// A timestamptz, in microseconds since 1970.
///
/// A time before PostgreSQL's earliest is written as the earliest. An event with such a time is
/// refused, and its dead letter has the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamptz(pub(crate) i64);

impl Type<Postgres> for Timestamptz {
    fn type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ)
    }
}

impl PgHasArrayType for Timestamptz {
    fn array_type_info() -> PgTypeInfo {
        PgTypeInfo::with_oid(TIMESTAMPTZ_ARRAY)
    }
}

impl Encode<'_, Postgres> for Timestamptz {
    fn encode_by_ref(&self, buffer: &mut PgArgumentBuffer) -> Result<IsNull, BoxDynError> {
        let since_2000 = self.0.saturating_sub(MICROS_TO_2000).max(EARLIEST);
        <i64 as Encode<'_, Postgres>>::encode_by_ref(&since_2000, buffer)
    }
}

impl Decode<'_, Postgres> for Timestamptz {
    fn decode(value: PgValueRef<'_>) -> Result<Self, BoxDynError> {
        match value.format() {
            PgValueFormat::Binary => {
                let bytes: [u8; 8] = value.as_bytes()?.try_into()?;
                Ok(Self(i64::from_be_bytes(bytes).saturating_add(MICROS_TO_2000)))
            }
            PgValueFormat::Text => Err("a timestamptz in text form was not asked for".into()),
        }
    }
}
