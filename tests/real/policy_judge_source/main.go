// Command policyjudge copies an image as a container runtime does, under a policy.
package main

import (
	"context"
	"fmt"
	"os"

	"github.com/containers/image/v5/copy"
	"github.com/containers/image/v5/directory"
	"github.com/containers/image/v5/docker"
	"github.com/containers/image/v5/signature"
	"github.com/containers/image/v5/types"
)

func main() {
	if err := run(os.Args[1], os.Args[2], os.Args[3], os.Args[4]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(policyFile, registries, image, folder string) error {
	policy, err := signature.NewPolicyFromFile(policyFile)
	if err != nil {
		return err
	}
	allowed, err := signature.NewPolicyContext(policy)
	if err != nil {
		return err
	}
	source, err := docker.ParseReference("//" + image)
	if err != nil {
		return err
	}
	target, err := directory.NewReference(folder)
	if err != nil {
		return err
	}
	system := &types.SystemContext{
		ArchitectureChoice: "amd64", OSChoice: "linux", RegistriesDirPath: registries,
		SystemRegistriesConfPath: "/dev/null", SystemRegistriesConfDirPath: "/dev/null",
		DockerInsecureSkipTLSVerify: types.OptionalBoolTrue,
	}
	_, err = copy.Image(context.Background(), allowed, target, source, &copy.Options{SourceCtx: system, RemoveSignatures: true})
	return err
}
