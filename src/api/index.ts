/**
 * The process boundary. Programs that only talk to a daemon import client.ts and paths.ts, which load nothing else;
 * this index brings the server with its framework.
 */
export { ApiClient, type OpenOptions } from './client.ts'
export { defaultDataDirectory, defaultSocketPath } from './paths.ts'
export { createApiServer, type ApiServer, type ApiServerInit, type TcpInit } from './server.ts'
export type * from './types.ts'
