CREATE DATABASE tiled_catalog;
CREATE DATABASE tiled_tables;
CREATE DATABASE prefect;
