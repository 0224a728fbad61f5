# People and programs that look and change nothing: orders, freezes, and what hosts report.
#   consul acl policy create -name hostler-reader -rules @consul-reader.hcl
key_prefix "hostler/hosts/" {
  policy = "read"
}
key_prefix "hostler/groups/" {
  policy = "read"
}
key_prefix "hostler/history/" {
  policy = "read"
}
key_prefix "hostler/reports/" {
  policy = "read"
}
