// Kubernetes' own kube-controller-manager: its go.mod replaces the staging modules, so that `go install` refuses it, and a module has to wrap it.
package main

import (
	"os"

	"k8s.io/component-base/cli"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
)

func main() { os.Exit(cli.Run(app.NewControllerManagerCommand())) }
