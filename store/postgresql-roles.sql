-- postgresql-roles.sql - what each user of a keystore in PostgreSQL needs, and no more
--
--     psql -d DATABASE -v schema=public -f postgresql-roles.sql
--
-- as the owner of the tables, with the right to make roles; again after an update of this software
-- or of Trustpoint. Three groups come of it, to which the roles that log in are added:
--
--     GRANT tpks_reader TO "www-data";      -- loads keys: web servers
--     GRANT tpks_restorer TO "root";        -- the unlock service: gives a token its KEK back
--     GRANT tpks_administrator TO "alice";  -- adds, changes and removes keys, slots and passwords
--
-- Only the owner makes and drops tables (trustpoint-keystore init). Tables that this database does
-- not have are passed over: a native keystore has those with tpks_, Trustpoint has its own.
\set ON_ERROR_STOP on

SELECT format('CREATE ROLE %I NOLOGIN', name)
    FROM (VALUES ('tpks_reader'), ('tpks_restorer'), ('tpks_administrator')) AS wanted (name)
    WHERE NOT EXISTS (SELECT 1 FROM pg_roles WHERE rolname = name)
\gexec
GRANT tpks_reader TO tpks_restorer;
GRANT tpks_restorer TO tpks_administrator;
GRANT USAGE ON SCHEMA :"schema" TO tpks_reader;

SELECT format('GRANT %s ON TABLE %I.%I TO %I', rights, schemaname, tablename, role)
    FROM (VALUES
        -- Loading a key reads all of a native keystore.
        ('tpks_reader', 'SELECT', 'tpks_mark'),
        ('tpks_reader', 'SELECT', 'tpks_header'),
        ('tpks_reader', 'SELECT', 'tpks_dek'),
        ('tpks_reader', 'SELECT', 'tpks_slot'),
        ('tpks_reader', 'SELECT', 'tpks_wrap'),
        ('tpks_reader', 'SELECT', 'tpks_record'),
        ('tpks_reader', 'SELECT', 'tpks_certificate'),
        -- A restore writes slots and the header's seal; neither keys nor names.
        ('tpks_restorer', 'UPDATE (generation, seal_nonce, seal)', 'tpks_header'),
        ('tpks_restorer', 'INSERT, DELETE', 'tpks_slot'),
        ('tpks_restorer', 'INSERT, DELETE', 'tpks_wrap'),
        ('tpks_administrator', 'INSERT, UPDATE, DELETE', 'tpks_record'),
        ('tpks_administrator', 'INSERT, UPDATE, DELETE', 'tpks_certificate'),
        -- trustpoint-keystore header restore puts these in place again.
        ('tpks_administrator', 'INSERT, UPDATE, DELETE', 'tpks_header'),
        ('tpks_administrator', 'INSERT, UPDATE, DELETE', 'tpks_dek'),
        -- Trustpoint: credentials, what names them, and where their DEK is.
        ('tpks_reader', 'SELECT', 'pki_credentialmodel'),
        ('tpks_reader', 'SELECT', 'pki_certificatemodel'),
        ('tpks_reader', 'SELECT', 'pki_primarycredentialcertificate'),
        ('tpks_reader', 'SELECT', 'pki_certificatechainordermodel'),
        ('tpks_reader', 'SELECT', 'pki_activetrustpointtlsservercredentialmodel'),
        ('tpks_reader', 'SELECT', 'pki_issuingcamodel'),
        ('tpks_reader', 'SELECT', 'pki_genericcamodel'),
        ('tpks_reader', 'SELECT', 'pki_domainmodel'),
        ('tpks_reader', 'SELECT', 'pki_issuedcredentialmodel'),
        ('tpks_reader', 'SELECT', 'pki_remoteissuedcredentialmodel'),
        ('tpks_reader', 'SELECT', 'pki_ownercredentialmodel'),
        ('tpks_reader', 'SELECT', 'devices_devicemodel'),
        ('tpks_reader', 'SELECT', 'devices_issuedcredentialmodel'),
        ('tpks_reader', 'SELECT', 'signer_signermodel'),
        ('tpks_reader', 'SELECT', 'pki_pkcs11key'),
        ('tpks_reader', 'SELECT', 'management_pkcs11token'),
        ('tpks_reader', 'SELECT', 'management_keystorageconfig'),
        ('tpks_reader', 'SELECT', 'app_secret_backend'),
        ('tpks_reader', 'SELECT', 'app_secret_pkcs11_config'),
        ('tpks_reader', 'SELECT', 'app_secret_software_config'),
        ('tpks_reader', 'SELECT', 'crypto_provider_profile'),
        ('tpks_reader', 'SELECT', 'crypto_provider_pkcs11_config'),
        ('tpks_reader', 'SELECT', 'crypto_provider_software_config'),
        ('tpks_reader', 'SELECT', 'crypto_managed_key'),
        ('tpks_reader', 'SELECT', 'crypto_managed_key_pkcs11_binding'),
        ('tpks_reader', 'SELECT', 'crypto_managed_key_protected_import_binding'),
        ('tpks_reader', 'SELECT', 'crypto_managed_key_software_binding'),
        ('tpks_reader', 'SELECT', 'crypto_managed_key_rest_binding'),
        -- A restore gives Trustpoint the DEK under a new KEK.
        ('tpks_restorer', 'UPDATE (encrypted_dek, kek_id)', 'management_pkcs11token'),
        ('tpks_restorer', 'INSERT', 'pki_pkcs11key'),
        ('tpks_restorer', 'UPDATE (wrapped_dek)', 'app_secret_pkcs11_config')
    ) AS wanted (role, rights, name)
    JOIN pg_tables ON tablename = name AND schemaname = :'schema'
\gexec
