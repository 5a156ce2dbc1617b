# shellcheck shell=bash
# kv_get of one random key, against the prepared SELECT that one would write by hand; 1 and 16 clients

side kv_get "SELECT kv_get(:id::text)"
side select "SELECT value FROM hand WHERE key = :id::text AND (expires_at IS NULL OR expires_at > now())"

sql CHECKPOINT
compare 1 kv_get select floor
ratio "get, 1 client" kv_get select 1.15
compare 16 kv_get select floor
ratio "get, 16 clients" kv_get select 1.05
