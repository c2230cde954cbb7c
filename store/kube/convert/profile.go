package convert

import (
	corev1 "k8s.io/api/core/v1"

	v3 "margay/api/v3"
)

// Namespace returns the profile of a namespace: its labels for its pods and, as Kubernetes has no policy for pods that no
// policy selects, leave for everything.
func Namespace(ns *corev1.Namespace) *v3.Profile {
	p := profile(v3.PrefixNamespaceProfile+ns.Name, v3.PrefixNamespaceLabel, ns.Name, ns.Labels)
	p.ObjectMeta = derived(p.Name, &ns.ObjectMeta)
	p.Spec.Ingress = []v3.Rule{{Action: v3.ActionAllow}}
	p.Spec.Egress = []v3.Rule{{Action: v3.ActionAllow}}
	return p
}

// ServiceAccount returns the profile of a service account, which gives labels and no rules.
func ServiceAccount(sa *corev1.ServiceAccount) *v3.Profile {
	p := profile(accountProfile(sa.Namespace, sa.Name), v3.PrefixServiceAccountLabel, sa.Name, sa.Labels)
	p.ObjectMeta = derived(p.Name, &sa.ObjectMeta)
	p.Namespace = ""
	return p
}

func profile(name, prefix, of string, labels map[string]string) *v3.Profile {
	p := &v3.Profile{TypeMeta: typeMeta(v3.KindProfile)}
	p.Name = name
	p.Spec.LabelsToApply = make(map[string]string, len(labels)+1)
	for key, value := range labels {
		p.Spec.LabelsToApply[prefix+key] = value
	}
	p.Spec.LabelsToApply[prefix+v3.LabelName] = of
	return p
}

func accountProfile(namespace, account string) string {
	return v3.PrefixServiceAccountProfile + namespace + "." + account
}
