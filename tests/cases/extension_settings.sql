-- An extension's table of settings: some rows come with the extension, ours are dumped. And an extension's own sequence.
CREATE SCHEMA mail_rules;
CREATE EXTENSION mail_rules WITH SCHEMA mail_rules;
INSERT INTO mail_rules.rule (name) VALUES ('from the office'), ('newsletters');
INSERT INTO mail_rules.schedule (job) VALUES ('weekly'), ('monthly'), ('never');
