-- What a project at Supabase has that a plain PostgreSQL has not, as far as rights are concerned:
-- the schemas are usable by everyone, and what is created in public is open to everyone.
create schema if not exists auth;
create schema if not exists extensions;
grant usage on schema public, auth, extensions to anon, authenticated, service_role;
alter default privileges for role lakegauge_owner in schema public grant all on tables to anon, authenticated, service_role;
alter default privileges for role lakegauge_owner in schema public grant all on functions
    to anon, authenticated, service_role;
alter default privileges for role lakegauge_owner in schema public grant all on sequences
    to anon, authenticated, service_role;
