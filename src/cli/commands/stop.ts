import { setTimeout } from 'node:timers/promises'
import type { Command } from 'commander'
import { isAbsent, type ApiClient } from '../../api/client.ts'
import { DaemonUnreachableError, NodeStoppedError } from '../../base/index.ts'
import { layoutOf } from '../../storage/layout.ts'
import { action, type Context } from '../context.ts'
import { duration } from '../format.ts'
import { pidIn, stateOf } from '../process-state.ts'

/** A daemon leaves within five seconds, whatever happens; a slow host gets as long again. */
const PATIENCE_MS = 10_000
/** One that lives takes the request in milliseconds, also where it is busy. */
const REQUEST_MS = 5_000
/** For whether anybody still answers. */
const ANSWER_MS = 1_000
const LOOK_MS = 50

export function addStop (program: Command): void {
  program.command('stop')
    .description('stop the daemon, and return when it has ended; what it holds stays')
    .action(action(async context => {
      const startedAt = performance.now()
      const askedAt = Date.now()
      const { pid } = await request(context)
      // The pid alone says little of a daemon in a container, nor the socket of one that still puts away what it has.
      while (await stateOf(pid) === 'alive' || await answers(context.client, askedAt)) {
        if (performance.now() - startedAt > PATIENCE_MS) throw new NodeStoppedError(`the daemon (pid ${pid}) was asked to stop and still runs; ${await wayOut(pid)}`)
        await setTimeout(LOOK_MS)
      }
      const took = (performance.now() - startedAt) / 1_000
      context.print({ stopped: true, pid, seconds: took }, `stopped, in ${duration(took)}`)
    }))
}

/** Asks, with a deadline: a daemon that is suspended or stuck takes connections and says nothing for ever. */
async function request ({ client, dataDirectory, socketPath }: Context): Promise<{ pid: number }> {
  const signal = AbortSignal.timeout(REQUEST_MS)
  try {
    return await client.shutdown({ signal })
  } catch (error) {
    if (!signal.aborted) throw error
    const pid = await pidIn(dataDirectory)
    const named = pid === undefined ? '' : ` (pid ${pid}, says ${layoutOf(dataDirectory).lockOwner})`
    throw new NodeStoppedError(`the daemon on ${socketPath}${named} has not answered for ${duration(REQUEST_MS / 1_000)}: it is suspended or stuck; ${await wayOut(pid)}`, { cause: error })
  }
}

/** Whether the daemon that was asked at `askedAt`, in milliseconds since 1970, still answers: a service manager may have started the next one. */
async function answers (client: ApiClient, askedAt: number): Promise<boolean> {
  try {
    const { startedAt } = await client.status({ signal: AbortSignal.timeout(ANSWER_MS) })
    return startedAt < askedAt
  } catch (error) {
    return !(error instanceof DaemonUnreachableError && isAbsent(error.cause))
  }
}

/** What is left to do. Nobody is told to kill what is not the daemon; the first process of a container takes no signal from within. */
async function wayOut (pid: number | undefined): Promise<string> {
  if (pid !== undefined && pid > 1 && await stateOf(pid) === 'alive') return `look at its log, or end it with: kill -9 ${pid}`
  return 'look at its log where it runs, and end it there: a container is stopped as a whole'
}
