import type { Logger } from '../base/index.ts'
import type { EndpointTraffic } from '../api/endpoint-metrics.ts'
import type { HfServer } from '../hf/index.ts'
import type { ShoalNode } from '../node/types.ts'
import type { DaemonSettings } from './config.ts'

/** The endpoint for Hugging Face clients, listening; loaded only where it is wanted. */
export async function startHf ({ listen, ...init }: DaemonSettings['hf'], node: ShoalNode, { logger, traffic }: { logger: Logger, traffic: EndpointTraffic }): Promise<HfServer | undefined> {
  if (listen === undefined) return undefined
  const { createHfServer } = await import('../hf/index.ts')
  const server = createHfServer({ ...init, ...listen, node, traffic, logger: logger.child({ component: 'hf' }) })
  await server.start()
  return server
}
