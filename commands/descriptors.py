"""How many files and sockets a process may have open."""

import resource

import structlog

# Kept free of connections: for the database, the log, recordings and bodies on disk, downloads and vendors.
_RESERVE = 512
_FEWEST_CONNECTIONS = 16

log = structlog.get_logger()


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as error:
            # macOS calls its hard limit infinite and refuses it.
            log.warning("descriptors.not_raised", soft=soft, hard=hard, reason=str(error))
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft


def connections_within(descriptors: int, wanted: int) -> int:
    """Return how many connections fit: `wanted`, or as many as `descriptors` allow beside everything else."""
    if descriptors == resource.RLIM_INFINITY:
        return wanted
    fitting = max(descriptors - min(_RESERVE, descriptors // 4), _FEWEST_CONNECTIONS)
    if fitting < wanted:
        log.warning("connections.limited", connections=fitting, wanted=wanted, descriptors=descriptors)
    return min(wanted, fitting)
