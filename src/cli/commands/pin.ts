import type { Command } from 'commander'
import { action } from '../context.ts'

export function addPin (program: Command): void {
  program.command('pin')
    .description('keep a model: it is never evicted')
    .argument('<cid>', 'the model CID')
    .action(action(async (context, cid: string) => {
      const result = await context.client.pin(cid)
      context.print(result, `pinned ${result.cid}`)
    }))
}

export function addUnpin (program: Command): void {
  program.command('unpin')
    .description('let a model be evicted again when space is needed')
    .argument('<cid>', 'the model CID')
    .action(action(async (context, cid: string) => {
      const result = await context.client.unpin(cid)
      context.print(result, `unpinned ${result.cid}`)
    }))
}
