# People who place orders, control runs and freeze hosts and groups, and read what hosts report.
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
  policy = "read"
}
