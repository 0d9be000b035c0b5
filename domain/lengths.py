"""How long each text may be, in characters: one table for the served document, the models and both engines.

A schema takes a length from here by `x-length: <name>`; a column by `max_length=LENGTHS["<name>"]`.
"""

LENGTHS = {
    "id": 24,
    "timestamp": 24,
    "digest": 64,
    "word": 16,  # a role, a status, a channel, a provider
    "direction": 8,
    "region": 2,
    "name": 200,
    "label": 100,
    "email": 320,
    "firstName": 200,
    "lastName": 200,
    "timezone": 64,
    "emoji": 32,
    "phoneNumber": 16,  # E.164: a plus sign and at most 15 digits
    "externalCallId": 512,
    # ElevenLabs' own have 33 characters. Callers may also use one as an externalCallId, so both have one limit.
    "conversationId": 512,
    "vendorId": 200,
    "objectKey": 300,
    "mediaType": 100,
    "tool": 32,
    "eventName": 32,
    "auditAction": 32,
    "client": 64,
    "requestId": 128,
}
