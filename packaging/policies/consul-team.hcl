# The team that looks after the group hana and its host db1: it places orders, controls runs and freezes there, and reads
# everything else.
#   consul acl policy create -name hostler-team-hana -rules @consul-team.hcl
# An order for a group reaches each of its hosts, whoever looks after them: grant a group only to the team of all its hosts.
key_prefix "hostler/hosts/" {
  policy = "read"
}
key_prefix "hostler/groups/" {
  policy = "read"
}
key_prefix "hostler/history/" {
  policy = "read"
}
key_prefix "hostler/history/groups/hana/" {
  policy = "write"
}
key_prefix "hostler/history/hosts/db1/" {
  policy = "write"
}
key_prefix "hostler/reports/" {
  policy = "read"
}
key_prefix "hostler/groups/hana/" {
  policy = "write"
}
key_prefix "hostler/hosts/db1/" {
  policy = "write"
}
# The markers say which hosts and groups exist; they are written by who enrolls hosts.
key "hostler/groups/hana/_hostler" {
  policy = "read"
}
key "hostler/hosts/db1/_hostler" {
  policy = "read"
}
