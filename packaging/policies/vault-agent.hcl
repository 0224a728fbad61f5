# The AppRole of one host's agent: it reads the secrets of its host, looks after its own token, and makes tokens of
# these same rights for its runs; nothing else.
#   vault policy write hostler-db1 vault-agent.hcl
#   vault write auth/approle/role/hostler-db1 token_policies=hostler-db1 token_ttl=1h token_max_ttl=24h \
#       secret_id_bound_cidrs=HOST/32 token_bound_cidrs=HOST/32
path "kv/data/postgres/db1" {
  capabilities = ["read"]
}
# Versions, for `on_secret_change`.
path "kv/metadata/postgres/db1" {
  capabilities = ["read"]
}
# A token for each epoch of a run: a child, with no other policies than its parent.
path "auth/token/create" {
  capabilities = ["update"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
