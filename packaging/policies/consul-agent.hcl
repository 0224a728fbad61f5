# Hostler's agent on db1: consul acl policy create -name hostler-db1 -rules @FILE
key_prefix "hostler/hosts/db1/" {
  policy = "read"
}
key_prefix "hostler/groups/all/" {
  policy = "read"
}
key_prefix "hostler/groups/hana/" {
  policy = "read"
}
key "hostler/reports/agents/db1" {
  policy = "write"
}
key "hostler/reports/facts/db1" {
  policy = "write"
}
key "hostler/reports/audit/db1" {
  policy = "write"
}
key_prefix "hostler/reports/orders/db1/" {
  policy = "write"
}
key_prefix "hostler/reports/runs/db1/" {
  policy = "write"
}
# Shows the host as a service; `consul.register: false` does without.
service "hostler-db1" {
  policy = "write"
}
