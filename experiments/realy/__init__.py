"""Tables 3 and 4: shape errors by the protocol of REALY."""
