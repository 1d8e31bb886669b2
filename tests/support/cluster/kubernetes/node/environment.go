package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	resources "k8s.io/kubernetes/pkg/api/v1/resource"
	"k8s.io/kubernetes/pkg/fieldpath"
	"k8s.io/kubernetes/pkg/kubelet/envvars"
	"k8s.io/kubernetes/third_party/forked/golang/expansion"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// What a pod's environment and volumes are made from.
type sources interface {
	configMap(name string) (map[string][]byte, error) // nil where it does not exist
	secret(name string) (map[string][]byte, error)
	field(path string) (string, error)
}

// Variables in order; a later one of the same name wins.
type environment struct {
	names  []string
	values map[string]string
}

func (e *environment) set(name, value string) {
	if e.values == nil {
		e.values = map[string]string{}
	}
	if _, known := e.values[name]; !known {
		e.names = append(e.names, name)
	}
	e.values[name] = value
}

func (e *environment) pairs() []string {
	pairs := make([]string, 0, len(e.names))
	for _, name := range e.names {
		pairs = append(pairs, name+"="+e.values[name])
	}
	return pairs
}

func (e *environment) expand(text string, more map[string]string) string {
	return expansion.Expand(text, expansion.MappingFuncFor(e.values, more))
}

// A container's variables: the image's, the Services', then its own. References see the Services' and its own, as in a kubelet.
func containerEnvironment(c *v1.Container, image image, services []*v1.Service, from sources) (full, own environment, err error) {
	full.set("PATH", defaultPath)
	for name, value := range image.Env {
		full.set(name, value)
	}
	linked := map[string]string{}
	for _, variable := range envvars.FromServices(services) {
		linked[variable.Name] = variable.Value
	}
	if err := setFrom(&own, c.EnvFrom, from); err != nil {
		return full, own, err
	}
	for _, variable := range c.Env {
		value := own.expand(variable.Value, linked)
		if variable.ValueFrom != nil {
			found, ok, err := valueFrom(variable.ValueFrom, c, from)
			if err != nil {
				return full, own, fmt.Errorf("env %s: %w", variable.Name, err)
			}
			if !ok {
				continue
			}
			value = found
		}
		own.set(variable.Name, value)
	}
	for name, value := range linked {
		full.set(name, value)
	}
	for _, name := range own.names {
		full.set(name, own.values[name])
	}
	return full, own, nil
}

func setFrom(e *environment, entries []v1.EnvFromSource, from sources) error {
	for _, entry := range entries {
		var data map[string][]byte
		var err error
		switch {
		case entry.ConfigMapRef != nil:
			data, err = whole("ConfigMap", entry.ConfigMapRef.Name, entry.ConfigMapRef.Optional, from.configMap)
		case entry.SecretRef != nil:
			data, err = whole("Secret", entry.SecretRef.Name, entry.SecretRef.Optional, from.secret)
		}
		if err != nil {
			return err
		}
		for _, key := range sortedKeys(data) {
			e.set(entry.Prefix+key, string(data[key]))
		}
	}
	return nil
}

func valueFrom(source *v1.EnvVarSource, c *v1.Container, from sources) (string, bool, error) {
	switch {
	case source.FieldRef != nil:
		value, err := from.field(source.FieldRef.FieldPath)
		return value, err == nil, err
	case source.ResourceFieldRef != nil:
		value, err := resourceField(source.ResourceFieldRef, c)
		return value, err == nil, err
	case source.ConfigMapKeyRef != nil:
		ref := source.ConfigMapKeyRef
		return oneKey("ConfigMap", ref.Name, ref.Key, ref.Optional, from.configMap)
	case source.SecretKeyRef != nil:
		ref := source.SecretKeyRef
		return oneKey("Secret", ref.Name, ref.Key, ref.Optional, from.secret)
	}
	return "", false, errors.New("valueFrom: no source that this node knows")
}

// Where there is no limit, it is what the node has.
func resourceField(ref *v1.ResourceFieldSelector, c *v1.Container) (string, error) {
	limited := c.DeepCopy()
	resources.MergeContainerResourceLimits(limited, capacity())
	return resources.ExtractContainerResourceValue(ref, limited)
}

func whole(kind, name string, optional *bool, get func(string) (map[string][]byte, error)) (map[string][]byte, error) {
	data, err := get(name)
	if err == nil && data == nil && !isTrue(optional) {
		return nil, fmt.Errorf("%s %q not found", strings.ToLower(kind), name)
	}
	return data, err
}

func oneKey(kind, name, key string, optional *bool, get func(string) (map[string][]byte, error)) (string, bool, error) {
	data, err := whole(kind, name, optional, get)
	if err != nil {
		return "", false, err
	}
	value, ok := data[key]
	if !ok && !isTrue(optional) {
		return "", false, fmt.Errorf("couldn't find key %s in %s %s", key, kind, name)
	}
	return string(value), ok, nil
}

func isTrue(flag *bool) bool { return flag != nil && *flag }

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for key := range m {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return keys
}

// The Services that a container is told of by variables: the API server at its real address and, unless the pod says no, its neighbours.
func (p *pod) services() []*v1.Service {
	found := []*v1.Service{}
	if links := p.object().Spec.EnableServiceLinks; links == nil || *links {
		listed, err := p.node.informers.Core().V1().Services().Lister().Services(p.namespace).List(labels.Everything())
		if err == nil {
			for _, s := range listed {
				if s.Name != "kubernetes" && len(s.Spec.Ports) > 0 {
					found = append(found, s)
				}
			}
		}
	}
	return append(found, p.node.api)
}

func (p *pod) configMap(name string) (map[string][]byte, error) {
	found, err := p.node.client.CoreV1().ConfigMaps(p.namespace).Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	data := map[string][]byte{}
	for key, value := range found.Data {
		data[key] = []byte(value)
	}
	for key, value := range found.BinaryData {
		data[key] = value
	}
	return data, nil
}

func (p *pod) secret(name string) (map[string][]byte, error) {
	found, err := p.node.client.CoreV1().Secrets(p.namespace).Get(context.Background(), name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if found.Data == nil {
		return map[string][]byte{}, nil
	}
	return found.Data, nil
}

func (p *pod) field(path string) (string, error) {
	object := p.object()
	switch path {
	case "spec.nodeName":
		return object.Spec.NodeName, nil
	case "spec.serviceAccountName":
		return object.Spec.ServiceAccountName, nil
	case "status.hostIP", "status.hostIPs":
		return p.node.gateway, nil
	case "status.podIP", "status.podIPs":
		return p.ip, nil
	}
	return fieldpath.ExtractFieldPathAsString(object, path)
}
