"""Pictures, cut-outs, procedural clips and annotated sequences. Knows files and annotations; never loads
torch."""
