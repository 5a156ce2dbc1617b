CREATE EXTENSION kvstore
SELECT kv_create_store()
SELECT kv_create_queue()
CREATE PROCEDURE kvs_fuzz(target text, arguments text[]) LANGUAGE c AS '$libdir/kvstore', 'kvs_fuzz'
