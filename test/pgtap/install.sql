-- What CREATE EXTENSION leaves in a database.
BEGIN;
SELECT plan(2);
SELECT has_extension('kvstore');
SELECT has_schema('kvstore');
SELECT * FROM finish();
ROLLBACK;
