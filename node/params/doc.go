// Package params works out the settings of one agent from the places where they can be given:
//
//	environment FELIX_<Name>  >  file felix.cfg  >  environment of all clients (ETCD_ENDPOINTS, NODENAME ...)
//	  >  FelixConfiguration node.<host>  >  the one with a nodeSelector  >  default  >  built-in default
//
// Each place is first turned into texts by name, each text is then read by the one parser of its parameter, and the
// highest place that says anything wins. The fields of [Params] with their tags are the table of what this agent acts on;
// all other names that the incumbent knows are reported as not used.
//
// [Resolve] is a function of its arguments: it reads no file, no clock and no environment. It has no error: a value that
// cannot be read becomes a [Problem], the setting stays what it was, and the agent goes on. It must not log: problems are
// returned, and hold no secrets.
package params
