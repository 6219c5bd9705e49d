"""What a pod with CAP_NET_RAW and CAP_NET_ADMIN can send past a policy; standard library only, runs inside pods."""
