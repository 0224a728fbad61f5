# What a run on one host does: it reads the secrets of that host, keeps what it holds alive, and gives it up at its end.
# See vault-agent.hcl.
path "kv/data/postgres/db1" {
  capabilities = ["read"]
}
path "kv/data/postgres/db1/*" {
  capabilities = ["read"]
}
# Credentials that are made for the run and end with it.
path "database/creds/app" {
  capabilities = ["read"]
}
path "sys/leases/renew" {
  capabilities = ["update"]
}
path "auth/token/renew-self" {
  capabilities = ["update"]
}
path "auth/token/revoke-self" {
  capabilities = ["update"]
}
