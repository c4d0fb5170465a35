"""Will every kernel module that KMM loads still load on every kernel that its nodes will boot?"""
