"""Score frozen features by what labelled images teach: linear probe, few shots and nearest neighbours."""
