/* status.c - the one place that turns a status code into words. */
#include "oc.h"

const char *oc_status_text(oc_status status) {
    switch (status) {
    case OC_OK: return "ok";
    case OC_ERR_NOMEM: return "out of memory";
    case OC_ERR_ARGUMENT: return "invalid argument";
    case OC_ERR_FORMAT: return "damaged or unsupported data";
    case OC_ERR_CANCELLED: return "cancelled";
    case OC_ERR_FULL: return "no free KV block";
    case OC_ERR_THREAD: return "cannot start a worker thread";
    }
    return "unknown status";
}
