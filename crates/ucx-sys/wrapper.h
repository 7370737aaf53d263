/* What the bindings are made from; see regenerate.sh. */
#include <ucp/api/ucp.h>
