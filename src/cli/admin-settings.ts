// The settings that say where a running proxy can be asked. Apart from admin-client.ts, which the command line loads only
// for commands that ask.

export const ADMIN_SETTINGS = ['metricsListen', 'adminToken', 'adminTokenFile'] as const;
