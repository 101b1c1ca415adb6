import type { Command } from 'commander'
import { action } from '../context.ts'
import { count } from '../format.ts'
import { MODEL, namedModel } from '../named-model.ts'
import { parseReplicas } from '../units.ts'

export function addPin (program: Command): void {
  program.command('pin')
    .description('keep a model: it is never evicted')
    .argument('<model>', MODEL)
    .option('--replicas <n>', 'also change how many replicas the swarm keeps; only for a model published here')
    .action(action(async (context, model: string, options: { replicas?: string }) => {
      const replicas = parseReplicas(options.replicas)
      const { cid } = await namedModel(context, model)
      const result = await context.client.pin(cid, { replicas })
      context.print(result, `pinned ${result.cid}${result.replicas === undefined ? '' : `, ${count(result.replicas, 'replica')} wanted`}`)
    }))
}

export function addUnpin (program: Command): void {
  program.command('unpin')
    .description('let a model be evicted again when space is needed; one published here is let go everywhere')
    .argument('<model>', MODEL)
    .action(action(async (context, model: string) => {
      const { cid } = await namedModel(context, model)
      const result = await context.client.unpin(cid)
      context.print(result, `unpinned ${result.cid}`)
    }))
}
