# shellcheck shell=bash
# kv_get_many of 100 random keys, against "= ANY"; both give the client key and value

side kv_get_many "SELECT key, value FROM kv_get_many(:keys::text[])" keys
side any "SELECT key, value FROM hand WHERE key = ANY (:keys::text[]) AND (expires_at IS NULL OR expires_at > now())" keys

sql CHECKPOINT
compare 1 kv_get_many any floor
ratio "get_many, 100 keys" kv_get_many any 1.2
