package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"os"
	"path"
	"path/filepath"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	volumeutil "k8s.io/kubernetes/pkg/volume/util"
)

const refreshEvery = 30 * time.Second

type payload = map[string]volumeutil.FileProjection

// A token of a pod's, and when to ask for the next.
type token struct {
	text  string
	renew time.Time
}

func (p *pod) volumeFolder(name string) string { return filepath.Join(p.folder, "volumes", name) }

// Makes the volumes or brings their files up to date.
func (p *pod) writeVolumes() error {
	p.writing.Lock()
	defer p.writing.Unlock()
	object := p.object()
	for i := range object.Spec.Volumes {
		if err := p.writeVolume(object, &object.Spec.Volumes[i]); err != nil {
			return fmt.Errorf("volume %q: %w", object.Spec.Volumes[i].Name, err)
		}
	}
	return nil
}

func (p *pod) writeVolume(object *v1.Pod, volume *v1.Volume) error {
	folder := p.volumeFolder(volume.Name)
	switch {
	case volume.EmptyDir != nil:
		return p.makeEmptyDir(object, volume.EmptyDir, folder)
	case volume.HostPath != nil:
		return p.linkHostPath(volume.HostPath, folder)
	}
	files, err := p.files(object, volume)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	writer, err := volumeutil.NewAtomicWriter(folder, object.Name)
	if err != nil {
		return err
	}
	return writer.Write(files, func(written string) error {
		return ownFiles(filepath.Join(folder, written), fsGroup(object))
	})
}

func fsGroup(object *v1.Pod) *int64 {
	if object.Spec.SecurityContext == nil {
		return nil
	}
	return object.Spec.SecurityContext.FSGroup
}

func (p *pod) makeEmptyDir(object *v1.Pod, source *v1.EmptyDirVolumeSource, folder string) error {
	if _, err := os.Stat(folder); err == nil {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	if source.Medium == v1.StorageMediumMemory {
		if err := mount("tmpfs", folder, "tmpfs", 0, ""); err != nil {
			return err
		}
	}
	mode := fs.FileMode(0o777)
	if group := fsGroup(object); group != nil {
		if err := os.Lchown(folder, -1, int(*group)); err != nil {
			return err
		}
		mode |= fs.ModeSetgid
	}
	return os.Chmod(folder, mode)
}

func (p *pod) linkHostPath(source *v1.HostPathVolumeSource, folder string) error {
	if source.Type != nil && *source.Type == v1.HostPathDirectoryOrCreate {
		if err := os.MkdirAll(source.Path, 0o755); err != nil {
			return err
		}
	}
	real, err := filepath.EvalSymlinks(source.Path)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return err
	}
	if err := os.Symlink(real, folder); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// The group may read what the owner may.
func ownFiles(folder string, group *int64) error {
	if group == nil {
		return nil
	}
	return filepath.WalkDir(folder, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := os.Lchown(name, -1, int(*group)); err != nil {
			return err
		}
		found, err := entry.Info()
		switch {
		case err != nil || found.Mode()&fs.ModeSymlink != 0:
			return err
		case found.IsDir():
			return os.Chmod(name, found.Mode()|0o550|fs.ModeSetgid)
		}
		return os.Chmod(name, found.Mode()|0o440)
	})
}

func (p *pod) files(object *v1.Pod, volume *v1.Volume) (payload, error) {
	files := payload{}
	switch {
	case volume.ConfigMap != nil:
		source := volume.ConfigMap
		data, err := whole("ConfigMap", source.Name, source.Optional, p.configMap)
		return files, errors.Join(err, addKeys(files, data, source.Items, mode(source.DefaultMode), isTrue(source.Optional)))
	case volume.Secret != nil:
		source := volume.Secret
		data, err := whole("Secret", source.SecretName, source.Optional, p.secret)
		return files, errors.Join(err, addKeys(files, data, source.Items, mode(source.DefaultMode), isTrue(source.Optional)))
	case volume.DownwardAPI != nil:
		return files, p.addFields(files, object, volume.DownwardAPI.Items, mode(volume.DownwardAPI.DefaultMode))
	case volume.Projected != nil:
		for _, source := range volume.Projected.Sources {
			if err := p.addProjection(files, object, source, mode(volume.Projected.DefaultMode)); err != nil {
				return nil, err
			}
		}
		return files, nil
	}
	return nil, errors.New("a kind of volume that this node does not have")
}

func (p *pod) addProjection(files payload, object *v1.Pod, source v1.VolumeProjection, mode int32) error {
	switch {
	case source.ConfigMap != nil:
		data, err := whole("ConfigMap", source.ConfigMap.Name, source.ConfigMap.Optional, p.configMap)
		return errors.Join(err, addKeys(files, data, source.ConfigMap.Items, mode, isTrue(source.ConfigMap.Optional)))
	case source.Secret != nil:
		data, err := whole("Secret", source.Secret.Name, source.Secret.Optional, p.secret)
		return errors.Join(err, addKeys(files, data, source.Secret.Items, mode, isTrue(source.Secret.Optional)))
	case source.DownwardAPI != nil:
		return p.addFields(files, object, source.DownwardAPI.Items, mode)
	case source.ServiceAccountToken != nil:
		return p.addToken(files, object, source.ServiceAccountToken, mode)
	}
	return errors.New("a projection that this node does not have")
}

func mode(given *int32) int32 {
	if given == nil {
		return 0o644
	}
	return *given
}

func addKeys(files payload, data map[string][]byte, items []v1.KeyToPath, mode int32, optional bool) error {
	if len(items) == 0 {
		for key, value := range data {
			files[key] = volumeutil.FileProjection{Data: value, Mode: mode}
		}
		return nil
	}
	for _, item := range items {
		value, ok := data[item.Key]
		if !ok && !optional {
			return fmt.Errorf("references non-existent config key: %s", item.Key)
		}
		if ok {
			files[item.Path] = volumeutil.FileProjection{Data: value, Mode: itemMode(item.Mode, mode)}
		}
	}
	return nil
}

func itemMode(own *int32, mode int32) int32 {
	if own != nil {
		return *own
	}
	return mode
}

func (p *pod) addFields(files payload, object *v1.Pod, items []v1.DownwardAPIVolumeFile, mode int32) error {
	for _, item := range items {
		var value string
		var err error
		switch {
		case item.FieldRef != nil:
			value, err = p.field(item.FieldRef.FieldPath)
		case item.ResourceFieldRef != nil:
			value, err = volumeResource(object, item.ResourceFieldRef)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", item.Path, err)
		}
		files[path.Clean(item.Path)] = volumeutil.FileProjection{Data: []byte(value), Mode: itemMode(item.Mode, mode)}
	}
	return nil
}

func volumeResource(object *v1.Pod, ref *v1.ResourceFieldSelector) (string, error) {
	for _, containers := range [][]v1.Container{object.Spec.Containers, object.Spec.InitContainers} {
		for i := range containers {
			if containers[i].Name == ref.ContainerName {
				return resourceField(ref, &containers[i])
			}
		}
	}
	return "", fmt.Errorf("no container %q", ref.ContainerName)
}

func (p *pod) addToken(files payload, object *v1.Pod, source *v1.ServiceAccountTokenProjection, mode int32) error {
	key := source.Audience + "|" + source.Path
	if held := p.tokens[key]; held.text == "" || time.Now().After(held.renew) {
		fresh, err := p.requestToken(object, source)
		if err != nil {
			return err
		}
		p.tokens[key] = fresh
	}
	file := volumeutil.FileProjection{Data: []byte(p.tokens[key].text), Mode: mode, FsUser: commonUser(object)}
	// As a kubelet has it: where it is known who reads the token, nobody else does.
	if file.FsUser != nil || fsGroup(object) != nil {
		file.Mode = 0o600
	}
	files[source.Path] = file
	return nil
}

func (p *pod) requestToken(object *v1.Pod, source *v1.ServiceAccountTokenProjection) (token, error) {
	request := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: source.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: object.Name, UID: object.UID},
	}}
	if source.Audience != "" {
		request.Spec.Audiences = []string{source.Audience}
	}
	accounts := p.node.client.CoreV1().ServiceAccounts(p.namespace)
	made, err := accounts.CreateToken(context.Background(), object.Spec.ServiceAccountName, request, metav1.CreateOptions{})
	if err != nil {
		return token{}, err
	}
	lifetime := time.Until(made.Status.ExpirationTimestamp.Time)
	return token{text: made.Status.Token, renew: time.Now().Add(lifetime * 8 / 10)}, nil
}

// The user whom all containers run as, if there is one.
func commonUser(object *v1.Pod) *int64 {
	var common *int64
	for _, containers := range [][]v1.Container{object.Spec.InitContainers, object.Spec.Containers} {
		for i := range containers {
			user := runAsUser(object, &containers[i])
			if user == nil || common != nil && *common != *user {
				return nil
			}
			common = user
		}
	}
	return common
}

// Keeps files current until the pod ends.
func (p *pod) keepVolumes(ctx context.Context) {
	timer := time.NewTicker(refreshEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-p.stale:
		case <-timer.C:
		}
		if err := p.writeVolumes(); err != nil && ctx.Err() == nil {
			log.Printf("%s: %v", p.key(), err)
		}
	}
}

// What is mounted in a container, volumes and the image's files.
func (p *pod) binds(object *v1.Pod, c *v1.Container, image image, own *environment) ([]bind, error) {
	var binds []bind
	for _, b := range image.Binds {
		binds = append(binds, bind{From: b.From, To: b.To, ReadOnly: true})
	}
	volumes := map[string]*v1.Volume{}
	for i := range object.Spec.Volumes {
		volumes[object.Spec.Volumes[i].Name] = &object.Spec.Volumes[i]
	}
	for _, m := range c.VolumeMounts {
		from, err := filepath.EvalSymlinks(p.volumeFolder(m.Name))
		if err != nil {
			return nil, err
		}
		below := m.SubPath
		if m.SubPathExpr != "" {
			below = own.expand(m.SubPathExpr, nil)
		}
		volume := volumes[m.Name]
		writable := volume.EmptyDir != nil || volume.HostPath != nil
		if below != "" {
			if from, err = subPath(from, below, writable); err != nil {
				return nil, err
			}
		}
		binds = append(binds, bind{From: from, To: filepath.Join("/", m.MountPath), ReadOnly: m.ReadOnly || !writable})
	}
	return binds, nil
}

func subPath(folder, below string, create bool) (string, error) {
	if !filepath.IsLocal(below) {
		return "", fmt.Errorf("subPath %q: leads out of the volume", below)
	}
	joined := filepath.Join(folder, below)
	if _, err := os.Stat(joined); create && errors.Is(err, os.ErrNotExist) {
		if err := os.MkdirAll(joined, 0o755); err != nil {
			return "", err
		}
		// It belongs to whom the volume belongs, as does what a kubelet makes.
		if found, err := os.Stat(folder); err == nil {
			if err := os.Chmod(joined, found.Mode()); err != nil {
				return "", err
			}
		}
	}
	return filepath.EvalSymlinks(joined)
}
