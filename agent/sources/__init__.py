"""Where resources come from: a directory of manifests, or a cluster. Each source yields whole snapshots."""
