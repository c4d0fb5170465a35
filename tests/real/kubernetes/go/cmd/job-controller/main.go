// Job-controller KUBECONFIG is the controller of Jobs alone, out of the many in kube-controller-manager.
package main

import (
	"context"
	"log"
	"os"
	"time"

	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/kubernetes/pkg/controller/job"
)

func main() {
	config, err := clientcmd.BuildConfigFromFlags("", os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	// A test does not wait ten seconds for a retry.
	job.DefaultJobPodFailureBackOff = 100 * time.Millisecond
	client := kubernetes.NewForConfigOrDie(config)
	shared := informers.NewSharedInformerFactory(client, 0)
	ctx := context.Background()
	groups := shared.Scheduling().V1alpha2()
	jobs, err := job.NewController(ctx, client, shared.Core().V1().Pods(), shared.Batch().V1().Jobs(),
		groups.Workloads(), groups.PodGroups())
	if err != nil {
		log.Fatal(err)
	}
	shared.Start(ctx.Done())
	jobs.Run(ctx, 1)
}
