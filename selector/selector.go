// Package selector parses and evaluates label expressions, the one language by which policies choose endpoints and
// addresses (spec 1.6).
package selector
