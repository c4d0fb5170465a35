// The peer of the benchmark: a new implementation of the image check of KMM up to 2.3. It checks one image after the other.
// It unpacks the layers from last to first until a header has the requested name. It has no cache and shares no layers.
package main

import (
	"archive/tar"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
)

func holds(reference, path string) (bool, error) {
	ref, err := name.ParseReference(reference, name.Insecure)
	if err != nil {
		return false, err
	}
	image, err := remote.Image(ref)
	if err != nil {
		return false, err
	}
	layers, err := image.Layers()
	if err != nil {
		return false, err
	}
	for i := len(layers) - 1; i >= 0; i-- {
		body, err := layers[i].Uncompressed()
		if err != nil {
			return false, err
		}
		reader := tar.NewReader(body)
		for {
			header, err := reader.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				return false, err
			}
			if header.Name == path {
				return true, body.Close()
			}
		}
		body.Close()
	}
	return false, nil
}

// Arguments: the path inside the images, then the images.
func main() {
	for _, reference := range os.Args[2:] {
		found, err := holds(reference, os.Args[1])
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println(reference, found)
	}
}
