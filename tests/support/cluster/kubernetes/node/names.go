package main

import (
	"fmt"
	"os"
	"strings"

	v1 "k8s.io/api/core/v1"
)

// What /etc/resolv.conf says in a pod.
func resolvConf(object *v1.Pod, server, domain string) string {
	policy := object.Spec.DNSPolicy
	if policy == v1.DNSDefault {
		if text, err := os.ReadFile("/etc/resolv.conf"); err == nil {
			return string(text)
		}
	}
	servers, options := []string{server}, []string{"ndots:5"}
	searches := []string{object.Namespace + ".svc." + domain, "svc." + domain, domain}
	if policy == v1.DNSNone {
		servers, searches, options = nil, nil, nil
	}
	if own := object.Spec.DNSConfig; own != nil {
		servers, searches = append(servers, own.Nameservers...), append(searches, own.Searches...)
		for _, option := range own.Options {
			text := option.Name
			if option.Value != nil {
				text += ":" + *option.Value
			}
			options = replaceOption(options, text)
		}
	}
	var lines strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&lines, "nameserver %s\n", s)
	}
	if len(searches) > 0 {
		fmt.Fprintf(&lines, "search %s\n", strings.Join(searches, " "))
	}
	if len(options) > 0 {
		fmt.Fprintf(&lines, "options %s\n", strings.Join(options, " "))
	}
	return lines.String()
}

func replaceOption(options []string, text string) []string {
	name, _, _ := strings.Cut(text, ":")
	for i, known := range options {
		if before, _, _ := strings.Cut(known, ":"); before == name {
			options[i] = text
			return options
		}
	}
	return append(options, text)
}

func hostname(object *v1.Pod) string {
	name := object.Spec.Hostname
	if name == "" {
		name = object.Name
	}
	return strings.TrimRight(name[:min(len(name), 63)], "-.")
}

// What /etc/hosts says in a pod.
func hostsFile(object *v1.Pod, ip, domain string) string {
	lines := []string{
		"# Kubernetes-managed hosts file.", "127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback",
		"fe00::0\tip6-localnet", "ff00::0\tip6-mcastprefix", "ff02::1\tip6-allnodes", "ff02::2\tip6-allrouters",
	}
	name := hostname(object)
	if object.Spec.Subdomain != "" {
		name = fmt.Sprintf("%s.%s.%s.svc.%s\t%s", name, object.Spec.Subdomain, object.Namespace, domain, name)
	}
	lines = append(lines, ip+"\t"+name)
	for _, alias := range object.Spec.HostAliases {
		lines = append(lines, alias.IP+"\t"+strings.Join(alias.Hostnames, "\t"))
	}
	return strings.Join(lines, "\n") + "\n"
}
