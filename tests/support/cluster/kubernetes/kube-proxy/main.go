// Kubernetes' own kube-proxy: what makes a cluster IP reach pods that have no sidecar of their own.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-proxy/app"
)

func main() { os.Exit(cli.Run(app.NewProxyCommand())) }
