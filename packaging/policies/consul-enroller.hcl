# People who enroll, rename and retire hosts: markers, orders, and the reports of hosts that are gone.
#   consul acl policy create -name hostler-enroller -rules @consul-enroller.hcl
# `hostler enroll --token-dir` also makes policies and tokens. Whoever may do that can give himself every right in Consul:
# grant it as `acl = "write"` only where the same people manage Consul's tokens anyway.
key_prefix "hostler/hosts/" {
  policy = "write"
}
key_prefix "hostler/groups/" {
  policy = "write"
}
key_prefix "hostler/history/" {
  policy = "write"
}
key_prefix "hostler/reports/" {
  policy = "write"
}
