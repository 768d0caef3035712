//! The archive in PostgreSQL. The only user of sqlx.
