# People who place orders, speak about runs and freeze groups, and read what hosts report.
key_prefix "hostler/orders/" {
  policy = "write"
}
key_prefix "hostler/control/" {
  policy = "write"
}
key_prefix "hostler/freeze/" {
  policy = "write"
}
key_prefix "hostler/reports/" {
  policy = "read"
}
