// Package v3 is the vocabulary of the product: the resource kinds of projectcalico.org/v3 as manifests and the store
// spell them, and every rule about a single object that needs nothing but the object.
//
//	manifest --Decode--> Document --Default--> --Validate--> --Encode--> the store's JSON
//	                                              |                          |
//	                                           Warnings                 DecodeStored --> calc
//
// [Decode] is strict and says where each fault is. [Validate] says what is wrong with an object that decoded, and
// [Document.Locate] adds file, document and line to that. [DecodeStored] takes what others wrote into the store: it
// tolerates fields that are new, and nothing that a rule could not be compiled from.
//
// The package does no I/O and knows no other object than the one it is given: whether the tier of a policy exists is
// the store's business. It depends on package selector and nothing else of this module.
package v3

//go:generate go run margay/api/crdgen . ../../install/crds
