package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ClusterInformation identifies the cluster. There is one, named default; initialisation of the store
// creates it and the CLI only reads it.
type ClusterInformation struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              ClusterInformationSpec `json:"spec"`
}

// ClusterInformationName is the name of the one ClusterInformation.
const ClusterInformationName = "default"

// ClusterInformationSpec: ClusterGUID has 32 hexadecimal digits, ClusterType is a comma separated list. DatastoreReady
// false means that a migration is under way and nobody may act on what the store holds; nil is no statement.
type ClusterInformationSpec struct {
	ClusterGUID    string `json:"clusterGUID,omitempty"`
	ClusterType    string `json:"clusterType,omitempty"`
	CalicoVersion  string `json:"calicoVersion,omitempty"`
	DatastoreReady *bool  `json:"datastoreReady,omitempty"`
	Variant        string `json:"variant,omitempty"`
}
