"""A real Kubernetes control plane, and a real Istio mesh on it, without containers: what tests of issue Istio run against."""
