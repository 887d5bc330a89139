"""Which sample comes when: seeded order, blends, packing."""
