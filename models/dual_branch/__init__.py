"""The dual branch (doi:10.19651/j.cnki.emt.2416644): ToCo beside an activation-modulated classifier."""
