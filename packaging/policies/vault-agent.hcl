# What the agent of one host does itself: it looks after its own token, makes tokens for its runs, and looks which
# version the secrets have that orders watch. It reads no secret: its runs do, with vault-run.hcl.
#   vault policy write hostler-db1 vault-agent.hcl
#   vault policy write hostler-db1-run vault-run.hcl
#   vault write auth/approle/role/hostler-db1 token_policies=hostler-db1,hostler-db1-run token_ttl=1h \
#       token_max_ttl=24h secret_id_bound_cidrs=HOST/32 token_bound_cidrs=HOST/32
# A token can be given no policy that its maker lacks, so the role has both; with
#   vault: {run_policies: [hostler-db1-run]}
# in the host's configuration a run's token has the second alone.

# A token for each epoch of a run: a child of the agent's own.
path "auth/token/create" {
  capabilities = ["update"]
}
# What an executor that was killed held is given back: by the token's accessor, which is no secret.
path "auth/token/revoke-accessor" {
  capabilities = ["update"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/lookup-self" {
  capabilities = ["read"]
}
# Versions, for `on_secret_change`: numbers and times, no values.
path "kv/metadata/postgres/db1" {
  capabilities = ["read"]
}
path "kv/metadata/postgres/db1/*" {
  capabilities = ["read"]
}
# `hostler check` asks what may be read, and gives the token up that it logged in for.
path "sys/capabilities-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
